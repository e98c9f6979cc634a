// One app on Flex Consumption: its plan, its settings, and how it is updated. Flex Consumption has no deployment slots.
param name string
param azdService string
param location string
param tags object
param isPrivate bool
param pythonVersion string
param appSubnetId string
param endpointSubnetId string
param webZoneId string
param identityId string
param identityClientId string
param hostStorageName string
param packageContainer string
param foldersStorageName string
param auditShare string
param auditFolder string
param modelsShare string
param modelsFolder string
param foldersKey int
param insightsConnectionString string
param workspaceId string

@description('DEPLOYR_ settings; secrets among them are references to the vault.')
param settings object

@allowed([2048, 4096])
param instanceMemoryMB int = 2048

@description('One instance at a time is updated: with a single one, clinicians would wait for it.')
param alwaysReady int = isPrivate ? 2 : 0

@minValue(40)
param maximumInstances int = 40

@description('How many requests one instance has at a time. docs/performance.md says what one process does.')
param requestsPerInstance int = 16

var storageSuffix = environment().suffixes.storage

// No key anywhere: the host proves itself by the identity, as the app does.
var hostSettings = {
  AzureWebJobsStorage__credential: 'managedidentity'
  AzureWebJobsStorage__clientId: identityClientId
  AzureWebJobsStorage__blobServiceUri: 'https://${hostStorageName}.blob.${storageSuffix}'
  AzureWebJobsStorage__queueServiceUri: 'https://${hostStorageName}.queue.${storageSuffix}'
  AzureWebJobsStorage__tableServiceUri: 'https://${hostStorageName}.table.${storageSuffix}'
  APPLICATIONINSIGHTS_CONNECTION_STRING: insightsConnectionString
  APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${identityClientId};Authorization=AAD'
  // How its own exporter fares is nobody's business, and goes to an address that a private network does not reach.
  APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL: 'true'
  // The SDKs in the app that are told of no client id look for it here.
  AZURE_CLIENT_ID: identityClientId
}

resource folders 'Microsoft.Storage/storageAccounts@2023-05-01' existing = {
  name: foldersStorageName
}

resource plan 'Microsoft.Web/serverfarms@2024-11-01' = {
  name: 'plan-${name}'
  location: location
  tags: tags
  kind: 'functionapp'
  sku: { name: 'FC1', tier: 'FlexConsumption' }
  properties: { reserved: true, zoneRedundant: isPrivate }
}

resource app 'Microsoft.Web/sites@2024-11-01' = {
  name: name
  location: location
  tags: union(tags, { 'azd-service-name': azdService })
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: { '${identityId}': {} }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    publicNetworkAccess: isPrivate ? 'Disabled' : 'Enabled'
    keyVaultReferenceIdentity: identityId
    virtualNetworkSubnetId: empty(appSubnetId) ? null : appSubnetId
    siteConfig: {
      minTlsVersion: '1.2'
      scmMinTlsVersion: '1.2'
      ftpsState: 'Disabled'
      http20Enabled: true
      appSettings: [
        for setting in items(union(hostSettings, settings)): { name: setting.key, value: setting.value }
      ]
    }
    functionAppConfig: {
      runtime: { name: 'python', version: pythonVersion }
      scaleAndConcurrency: {
        instanceMemoryMB: instanceMemoryMB
        maximumInstanceCount: maximumInstances
        alwaysReady: alwaysReady == 0 ? [] : [{ name: 'http', instanceCount: alwaysReady }]
        triggers: { http: { perInstanceConcurrency: requestsPerInstance } }
      }
      // In preview. Takes effect from the update after the one that sets it.
      siteUpdateStrategy: { type: 'RollingUpdate' }
      deployment: {
        storage: {
          type: 'blobContainer'
          value: 'https://${hostStorageName}.blob.${storageSuffix}/${packageContainer}'
          authentication: { type: 'UserAssignedIdentity', userAssignedIdentityResourceId: identityId }
        }
      }
    }
  }

  resource mounts 'config' = {
    name: 'azurestorageaccounts'
    properties: {
      audit: {
        type: 'AzureFiles'
        protocol: 'Smb'
        accountName: foldersStorageName
        shareName: auditShare
        mountPath: auditFolder
        accessKey: folders.listKeys().keys[foldersKey].value
      }
      models: {
        type: 'AzureFiles'
        protocol: 'Smb'
        accountName: foldersStorageName
        shareName: modelsShare
        mountPath: modelsFolder
        accessKey: folders.listKeys().keys[foldersKey].value
      }
    }
  }

  // Packages are sent with Entra ID. Passwords for publishing exist unless they are forbidden.
  resource ftp 'basicPublishingCredentialsPolicies' = {
    name: 'ftp'
    properties: { allow: false }
  }

  resource scm 'basicPublishingCredentialsPolicies' = {
    name: 'scm'
    properties: { allow: false }
  }
}

resource endpoint 'Microsoft.Network/privateEndpoints@2024-05-01' = if (isPrivate) {
  name: 'pe-${name}'
  location: location
  tags: tags
  properties: {
    subnet: { id: endpointSubnetId }
    privateLinkServiceConnections: [
      {
        name: 'app'
        properties: { privateLinkServiceId: app.id, groupIds: ['sites'] }
      }
    ]
  }

  resource names 'privateDnsZoneGroups' = {
    name: 'default'
    properties: { privateDnsZoneConfigs: [{ name: 'web', properties: { privateDnsZoneId: webZoneId } }] }
  }
}

resource measured 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'to-workspace'
  scope: app
  properties: {
    workspaceId: workspaceId
    // What the app says goes to Application Insights already.
    metrics: [{ category: 'AllMetrics', enabled: true }]
  }
}

output host string = app.properties.defaultHostName
output id string = app.id
